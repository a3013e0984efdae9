"""From anywhere to one typed table: sweep directories, MLflow, CSV; and how its rows pair."""
