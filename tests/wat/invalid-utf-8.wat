;; Gives a reason that is no text.
(core module $core
  (memory (export "memory") 1)
  (data (i32.const 2048) "\ff\fe\80")
  (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
  (func (export "publish") (param i32) (result i32)
    (i32.store8 (i32.const 0) (i32.const 1))
    (i32.store8 (i32.const 4) (i32.const 1))
    (i32.store (i32.const 8) (i32.const 2048))
    (i32.store (i32.const 12) (i32.const 3))
    (i32.const 0))
  (func (export "post-return") (param i32) ))
