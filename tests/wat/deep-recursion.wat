;; Calls itself until the stack is used up.
(core module $core
  (memory (export "memory") 1)
  (func $f (param i64) (result i64) (i64.add (call $f (local.get 0)) (i64.const 1)))
  (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
  (func (export "publish") (param i32) (result i32)
    (drop (call $f (i64.const 1))) (i32.const 0))
  (func (export "post-return") (param i32) ))
