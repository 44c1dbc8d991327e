//! WhatsApp multi-device protocol engine.
