;; Gives an answer that is neither ok nor an error.
(core module $core
  (memory (export "memory") 1)
  (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
  (func (export "publish") (param i32) (result i32)
    (i32.store8 (i32.const 0) (i32.const 7)) (i32.const 0))
  (func (export "post-return") (param i32) ))
