"""What all HTTP adapters stand on: requests and replies, problems, the Flask factory and the WSGI front."""
