"""Context assembly: what of the task memory a task is shown, packed into its budget without a model."""
