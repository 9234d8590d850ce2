;; Fills 64 MiB at a time, for ever: one instruction that takes long.
(core module $core
  (memory (export "memory") 1024)
  (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
  (func (export "publish") (param i32) (result i32)
    (loop (memory.fill (i32.const 65536) (i32.const 7) (i32.const 67043328)) (br 0)) unreachable)
  (func (export "post-return") (param i32) ))
