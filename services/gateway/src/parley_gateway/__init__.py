"""The REST and SSE face of Parley"""
