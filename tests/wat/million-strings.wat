;; Answers a batch with a million reasons of one byte.
(core module $core
  (memory (export "memory") 368)
  (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
  (func (export "publish") (param i32) (result i32) (i32.const 0))
  (func (export "post-return") (param i32))
  (func (export "publish-batch") (param i32 i32) (result i32)
    (local $at i32)
    (local.set $at (i32.const 65536))
    (loop
      (i32.store8 (local.get $at) (i32.const 1))
      (i32.store8 offset=4 (local.get $at) (i32.const 1))
      (i32.store offset=8 (local.get $at) (i32.const 32768))
      (i32.store offset=12 (local.get $at) (i32.const 1))
      (local.set $at (i32.add (local.get $at) (i32.const 24)))
      (br_if 0 (i32.lt_u (local.get $at) (i32.const 24065536))))
    (i32.store (i32.const 0) (i32.const 65536))
    (i32.store (i32.const 4) (i32.const 1000000))
    (i32.const 0)))
