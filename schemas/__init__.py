"""What is written down: Parquet schemas and configuration. Imports nothing else of this project."""
