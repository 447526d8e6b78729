"""Chats, messages and runs of Parley"""
