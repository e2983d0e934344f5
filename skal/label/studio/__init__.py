"""Label Studio, both ways: tasks, a server's projects, and its protocol for predictions."""
