"""Requests of our own to DICOMweb servers (PS3.18). The only user of urllib3."""
