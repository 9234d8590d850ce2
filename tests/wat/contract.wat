;; The contract around the core modules of this folder: each stands in the place of ";; core". It exports "memory",
;; "realloc", "publish" and "post-return". An answer has 24 bytes: 0 at its start is ok.
(component
  (import "outbox:publisher/types@0.1.0" (instance $types
    (type $binary' (record (field "content-type" string) (field "bytes" (list u8))))
    (export "binary-payload" (type $binary (eq $binary')))
    (type $payload' (variant (case "json" string) (case "binary" $binary)))
    (export "payload" (type $payload (eq $payload')))
    (type $wrapped' (record
      (field "uuid" string) (field "name" string) (field "version" (option u64)) (field "created-at" string)
      (field "data" $payload) (field "context" string)))
    (export "wrapped-event" (type $wrapped (eq $wrapped')))
    (type $stream' (record (field "id" string) (field "name" (option string)) (field "category" (option string))))
    (export "stream-id" (type $stream (eq $stream')))
    (type $recorded' (record
      (field "wrapped-event" $wrapped) (field "stream-id" $stream) (field "position" u64) (field "tenant-id" string)
      (field "attempt" u32)))
    (export "recorded" (type $recorded (eq $recorded')))
    (type $failure' (record (field "reason" string) (field "retry-after-ms" (option u32))))
    (export "failure" (type $failure (eq $failure')))
    (type $error' (variant (case "retryable" $failure) (case "rejected" string) (case "unavailable" $failure)))
    (export "publish-error" (type $error (eq $error')))))
  (alias export $types "recorded" (type $recorded))
  (alias export $types "publish-error" (type $error))
  ;; core
  (core instance $i (instantiate $core))
  (func $publish (param "event" $recorded) (result (result (error $error)))
    (canon lift (core func $i "publish")
      (memory $i "memory") (realloc (func $i "realloc")) (post-return (func $i "post-return"))))
  (instance $publisher (export "publish" (func $publish)))
  (export "outbox:publisher/publisher@0.1.0" (instance $publisher))
  ;; exports
)
