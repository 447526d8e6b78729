"""One inference engine behind gRPC"""
