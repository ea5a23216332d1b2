"""Bytes and files: records, segments, the journal, locks, leases. Only here."""
