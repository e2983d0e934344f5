"""The web page: parse requests, call the service, answer; access control and address."""
