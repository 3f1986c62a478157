"""Realtime: live instances in processes of their own, by the wall's clock, with messages over sockets."""
