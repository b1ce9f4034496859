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
  (import "wasi:cli/exit@0.2.0" (instance $exit
    (export "exit" (func (param "status" (result))))))
  (import "wasi:io/poll@0.2.0" (instance $poll
    (export "pollable" (type $pollable (sub resource)))
    (export "[method]pollable.block" (func (param "self" (borrow $pollable))))))
  (alias export $poll "pollable" (type $pollable))
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
    (alias outer 1 $pollable (type $pollable'))
    (export "pollable" (type $pollable (eq $pollable')))
    (export "subscribe-duration" (func (param "when" u64) (result (own $pollable))))))
  

  (core module $memory
    (memory (export "memory") 2)
    (global $next (mut i32) (i32.const 32768))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      
      (global.set $next (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (global.get $next)
      (global.set $next (i32.add (global.get $next) (local.get 3)))))
  (core instance $memory (instantiate $memory))
  (alias core export $memory "memory" (core memory $mem))
  (alias core export $memory "realloc" (core func $realloc))
  (core func $publish (canon lower (func $bus "publish") (memory $mem) (realloc $realloc)))
  (core func $log (canon lower (func $logging "log") (memory $mem)))
  (core func $exit (canon lower (func $exit "exit")))
  (core func $block (canon lower (func $poll "[method]pollable.block")))
  (core func $in (canon lower (func $clock "subscribe-duration")))

  (core module $main
    (import "env" "memory" (memory $memory 1))
    (import "env" "publish" (func $publish (param i32 i32)))
    (import "env" "log" (func $log (param i32 i32 i32 i32 i32)))
    (import "env" "exit" (func $exit (param i32)))
    (import "env" "block" (func $block (param i32)))
    (import "env" "in" (func $in (param i64) (result i32)))
    (func $handle (export "handle") (param i32) (result i32) (call $log (i32.const 2) (i32.const 3000) (i32.const 3) (i32.const 3000) (i32.const 5)) (call $publish (i32.const 2048) (i32.const 4096)) (call $block (call $in (i64.const 1000))) (i32.const 1024)) (data (i32.const 2048) "\b8\0b\00\00\05\00\00\00") (data (i32.const 3000) "lab.x"))
  (core instance $main (instantiate $main (with "env" (instance
    (export "memory" (memory $mem))
    (export "publish" (func $publish))
    (export "log" (func $log))
    (export "exit" (func $exit))
    (export "block" (func $block))
    (export "in" (func $in))
    ))))

  (func $handle (param "event" $event) (param "delivery" $delivery) (result (result (error $failure)))
    (canon lift (core func $main "handle") (memory $mem) (realloc $realloc) ))
  (instance $handler
    (export "event" (type $event))
    (export "delivery" (type $delivery))
    (export "failure" (type $failure))
    (export "handle" (func $handle)))
  (export "evoke:function/handler@0.1.0" (instance $handler))
)
