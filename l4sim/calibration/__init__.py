"""Making profiles: measured points read, fitted, imported, assumed; nothing here is needed while a simulation runs."""
