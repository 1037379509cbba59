"""The DICOM network adapter: associations in, C-ECHO, C-STORE and C-FIND for the core (PS3.7, PS3.8)."""
