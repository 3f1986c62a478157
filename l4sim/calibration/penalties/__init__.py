"""What batches of unequal lengths cost, predicted and measured."""
