"""What protoc made of csi.proto and of the registration of plugins: scripts/generate_csi."""
