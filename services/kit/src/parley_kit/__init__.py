"""Mechanisms that several Parley services need: gRPC, telemetry, settings, process life"""
