(component
(component $owner
  (type $r' (resource (rep i32)))
  (export $r "r" (type $r'))
  (core func $new (canon resource.new $r'))
  (core module $m
    (import "" "new" (func $new (param i32) (result i32)))
    (func (export "make") (result i32) (call $new (i32.const 7))))
  (core instance $i (instantiate $m (with "" (instance (export "new" (func $new))))))
  (func (export "make") (result (own $r)) (canon lift (core func $i "make"))))
(component $borrower
  (import "r" (type $r (sub resource)))
  (core func $drop (canon resource.drop $r))
  (core module $m
    (import "" "drop" (func $drop (param i32)))
    (func (export "take") (param i32) (call $drop (local.get 0))))
  (core instance $i (instantiate $m (with "" (instance (export "drop" (func $drop))))))
  (func (export "take") (param "r" (borrow $r)) (canon lift (core func $i "take"))))
(component $main
  (import "r" (type $r (sub resource)))
  (import "make" (func $make (result (own $r))))
  (import "take" (func $take (param "r" (borrow $r))))
  (core func $make (canon lower (func $make)))
  (core func $take (canon lower (func $take)))
  (core module $m
    (import "" "make" (func $make (result i32)))
    (import "" "take" (func $take (param i32)))
    (func (export "run") (result i32) (call $take (call $make)) (i32.const 0)))
  (core instance $i (instantiate $m (with "" (instance
    (export "make" (func $make)) (export "take" (func $take))))))
  (func (export "run") (result (result)) (canon lift (core func $i "run"))))
(instance $owner (instantiate $owner))
(alias export $owner "r" (type $r))
(instance $borrower (instantiate $borrower (with "r" (type $r))))
(instance $main (instantiate $main (with "r" (type $r))
  (with "make" (func $owner "make")) (with "take" (func $borrower "take"))))
(instance $run (export "run" (func $main "run")))
(export "wasi:cli/run@0.2.3" (instance $run)))
