"""What DICOM data sets mean: pure functions and values over bytes and files, no network, no SQL."""
