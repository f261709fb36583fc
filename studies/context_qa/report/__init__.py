"""Row scores become estimates, tables and figures."""
