"""What pacslite decides: ingest, queries, retrieval, removal. Knows no protocol, no SQL and no pixel codec."""
