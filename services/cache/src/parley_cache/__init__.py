"""The answer cache of Parley"""
