"""The schedulers that L4 is compared with; each module says what it follows and where it departs from that."""
