"""gRPC between services: server, client, statuses, deadlines."""
