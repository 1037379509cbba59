"""An OpenID provider as we call it: discovery, the code flow, ID tokens."""
