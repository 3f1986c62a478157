"""What routers write down of what they have sent where, each kind of book once."""
