"""Methods and patterns side by side: perplexity, tasks, tables and plots."""
