;; Asks for ever more table elements.
(core module $core
  (memory (export "memory") 1)
  (table $t 1 funcref)
  (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
  (func (export "publish") (param i32) (result i32)
    (loop (br_if 0 (i32.ne (table.grow $t (ref.null func) (i32.const 10000)) (i32.const -1))))
    unreachable)
  (func (export "post-return") (param i32) ))
