# SPDX-License-Identifier: MIT
"""`storewarden setup`: what the service needs on this machine, written once, and taken back."""
