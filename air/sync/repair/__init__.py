"""Reconciliation: two peers find out what differs between their stores, and exchange only that."""
