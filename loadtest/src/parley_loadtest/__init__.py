"""Locust users and the benchmark of Parley"""
