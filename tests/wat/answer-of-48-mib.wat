;; Gives a reason of 48 MiB.
(core module $core
  (memory (export "memory") 800)
  (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
  (func (export "publish") (param i32) (result i32)
    (i32.store8 (i32.const 0) (i32.const 1))
    (i32.store8 (i32.const 4) (i32.const 1))
    (i32.store (i32.const 8) (i32.const 65536))
    (i32.store (i32.const 12) (i32.const 50331648))
    (i32.const 0))
  (func (export "post-return") (param i32) ))
