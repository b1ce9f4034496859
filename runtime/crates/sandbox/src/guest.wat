;; Template of a guest for unit tests. The test inserts the number of initial memory pages, code for `realloc`, more
;; imports, options for lifting, and the fields of a core module that exports `handle`. The memory at address 1024 is
;; zero, so a `handle` that returns 1024 returns `ok`. The test removes the lines that end in `wasi` for a guest without
;; imports that may wait.
(component
  (import "evoke:function/types@0.1.0" (instance $types
    (type $pair (tuple string string))
    (type $event' (record
      (field "id" string) (field "source" string) (field "type" string) (field "subject" (option string))
      (field "time" (option string)) (field "datacontenttype" (option string)) (field "dataschema" (option string))
      (field "extensions" (list $pair)) (field "data" (list u8))))
    (export "event" (type (eq $event')))
    (type $draft' (record
      (field "type" string) (field "subject" (option string)) (field "datacontenttype" (option string))
      (field "dataschema" (option string)) (field "extensions" (list $pair)) (field "data" (list u8))
      (field "id" (option string))))
    (export "draft" (type (eq $draft')))
    (type $delivery' (record
      (field "id" string) (field "attempt" u32) (field "deadline-ms" u64) (field "replay" bool)
      (field "trigger" string)))
    (export "delivery" (type (eq $delivery')))
    (type $retry' (record (field "message" string) (field "after-ms" (option u64))))
    (export "retry" (type $retry (eq $retry')))
    (type $failure' (variant (case "retry" $retry) (case "reject" string)))
    (export "failure" (type (eq $failure')))))
  (alias export $types "event" (type $event))
  (alias export $types "draft" (type $draft))
  (alias export $types "delivery" (type $delivery))
  (alias export $types "failure" (type $failure))
  (import "evoke:function/bus@0.1.0" (instance $bus
    (alias outer 1 $draft (type $draft'))
    (export "draft" (type $draft (eq $draft')))
    (export "publish" (func (param "event" $draft) (result (result string (error string)))))))
  (import "wasi:logging/logging@0.1.0-draft" (instance $logging
    (type $level' (enum "trace" "debug" "info" "warn" "error" "critical"))
    (export "level" (type $level (eq $level')))
    (export "log" (func (param "level" $level) (param "context" string) (param "message" string)))))
  (import "wasi:cli/exit@0.2.0" (instance $exit ;; wasi
    (export "exit" (func (param "status" (result)))))) ;; wasi
  (import "wasi:io/poll@0.2.0" (instance $poll ;; wasi
    (export "pollable" (type $pollable (sub resource))) ;; wasi
    (export "[method]pollable.block" (func (param "self" (borrow $pollable)))))) ;; wasi
  (alias export $poll "pollable" (type $pollable)) ;; wasi
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock ;; wasi
    (alias outer 1 $pollable (type $pollable')) ;; wasi
    (export "pollable" (type $pollable (eq $pollable'))) ;; wasi
    (export "subscribe-duration" (func (param "when" u64) (result (own $pollable)))))) ;; wasi
  {IMPORTS}

  (core module $memory
    (memory (export "memory") {PAGES})
    (global $next (mut i32) (i32.const 32768))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      {REALLOC}
      (global.set $next (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (global.get $next)
      (global.set $next (i32.add (global.get $next) (local.get 3)))))
  (core instance $memory (instantiate $memory))
  (alias core export $memory "memory" (core memory $mem))
  (alias core export $memory "realloc" (core func $realloc))
  (core func $publish (canon lower (func $bus "publish") (memory $mem) (realloc $realloc)))
  (core func $log (canon lower (func $logging "log") (memory $mem)))
  (core func $exit (canon lower (func $exit "exit"))) ;; wasi
  (core func $block (canon lower (func $poll "[method]pollable.block"))) ;; wasi
  (core func $in (canon lower (func $clock "subscribe-duration"))) ;; wasi

  (core module $main
    (import "env" "memory" (memory $memory 1))
    (import "env" "publish" (func $publish (param i32 i32)))
    (import "env" "log" (func $log (param i32 i32 i32 i32 i32)))
    (import "env" "exit" (func $exit (param i32))) ;; wasi
    (import "env" "block" (func $block (param i32))) ;; wasi
    (import "env" "in" (func $in (param i64) (result i32))) ;; wasi
    {CORE})
  (core instance $main (instantiate $main (with "env" (instance
    (export "memory" (memory $mem))
    (export "publish" (func $publish))
    (export "log" (func $log))
    (export "exit" (func $exit)) ;; wasi
    (export "block" (func $block)) ;; wasi
    (export "in" (func $in)) ;; wasi
    ))))

  (func $handle (param "event" $event) (param "delivery" $delivery) (result (result (error $failure)))
    (canon lift (core func $main "handle") (memory $mem) (realloc $realloc) {LIFT}))
  (instance $handler
    (export "event" (type $event))
    (export "delivery" (type $delivery))
    (export "failure" (type $failure))
    (export "handle" (func $handle)))
  (export "evoke:function/handler@0.1.0" (instance $handler))
)
