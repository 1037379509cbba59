"""What the server knows: patients, studies, series, instances, their versions and blobs, changes, jobs and peers.

The only user of SQLAlchemy. Knows nothing of storage, of protocols or of files.
"""
