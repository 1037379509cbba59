"""How often something happened lately, counted together by all processes of a host."""
