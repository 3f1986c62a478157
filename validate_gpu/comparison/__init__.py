"""Live runs held against simulated ones: figures and their noise, iterations, decisions, migrations, and the report."""
