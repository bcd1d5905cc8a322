"""What protoc 3.21 makes of the published proto files; `make gen` writes them anew."""
