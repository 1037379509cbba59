"""DICOMweb (PS3.18): Studies Service; translates between HTTP and core, decides nothing."""
