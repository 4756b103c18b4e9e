"""The stages of a deployment: each a function of the job that returns what the run directory keeps."""
