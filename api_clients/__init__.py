"""A request becomes images at a remote service: one pure module per service, one engine that does the talking."""
