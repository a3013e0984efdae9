"""A search space: its schema, designs, domains, expressions and seeds, and the rules that span several keys."""
