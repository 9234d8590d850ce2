;; Asks for 4 GiB at its start.
(core module $core
  (memory (export "memory") 65536)
  (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
  (func (export "publish") (param i32) (result i32)
    (i32.const 0))
  (func (export "post-return") (param i32) ))
