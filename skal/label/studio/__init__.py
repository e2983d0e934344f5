"""Label Studio, both ways: tasks, projects on a server, and the protocol for predictions."""
