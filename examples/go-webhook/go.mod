module outbox.example/go-webhook

go 1.24
