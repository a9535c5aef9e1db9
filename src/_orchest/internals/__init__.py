"""Modules shared by the platform's services, under the names they always had."""
