"""Many runs against each other."""
